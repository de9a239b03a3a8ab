"""`python -m embtables` is the command `embtables`."""

from embtables.pipelines.cli.main import main

main()
