"""How a step ended, in steps.csv's column `exit_code` and in words."""


def meaning(code):
    """What an exit code of steps.csv says; nothing where all is well."""
    known = {"0": "", "124": "time was up", "127": "not installed", "-": "not run", "skipped": "not run", "running": "was running"}
    return known.get(str(code), "stopped" if code == "stopped" else f"failed ({code})")
