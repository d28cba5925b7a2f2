"""`python -m mock_idp`."""

from mock_idp.cli.main import main

if __name__ == "__main__":
    main()
