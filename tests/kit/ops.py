"""The programs of those who operate a service: nginx, tinyproxy, promtool."""

import os
import shutil

PROGRAMS = ("nginx", "tinyproxy", "promtool")


def where(program: str) -> str | None:
    """The path of such a program; Debian keeps some in a folder that is on no user's PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin")
