"""Use cases: plain functions over the Protocols in `ports`. Each write is one transaction, each refusal changes nothing."""
