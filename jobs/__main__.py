"""`python -m jobs KIND …` is `jobsd run KIND …`.

The command is found by its name among the installed ones: nothing here knows the package that has it.
"""

import sys
from importlib.metadata import entry_points


def main() -> int:
    """The exit code of `jobsd run`."""
    found = list(entry_points(group="console_scripts", name="jobsd"))
    if not found:
        sys.stderr.write("python -m jobs: jobsd is not installed; run: pip install .\n")
        return 70
    code: int = found[0].load()(["run", *sys.argv[1:]])
    return code


if __name__ == "__main__":
    sys.exit(main())
