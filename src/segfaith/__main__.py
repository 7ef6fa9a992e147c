"""`python -m segfaith` is the command `segfaith`."""

from segfaith.cli import main

if __name__ == "__main__":
    main()
