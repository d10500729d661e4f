"""Workers on a cluster: an engine that exists places them, each is `asktell work` as on any one machine."""
