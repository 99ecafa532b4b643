"""`python -m layerlock`."""

from layerlock.cli import main

main()
