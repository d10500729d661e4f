"""asktell inside other libraries. Each module needs the extra of its name, such as `asktell[optuna]`."""
