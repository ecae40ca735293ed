"""`python -m drrl_core` is the `drrl` command."""

from drrl_core.cli import main

if __name__ == "__main__":
    main()
