"""Operators' programs: nginx, tinyproxy and promtool."""

import os
import shutil
from pathlib import Path

PROGRAMS = ("nginx", "tinyproxy", "promtool")

_NGINX = """
daemon off; user root; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/conf.d/*.conf;
}}
"""


def where(program: str) -> str | None:
    """The path of a program; Debian installs some in /usr/sbin, which is not on a user's PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin")


def nginx(folder: Path, site: str) -> tuple[object, ...]:
    """The command that runs nginx with a site for /etc/nginx/conf.d; nginx writes only to `folder`.

    Its workers keep the test's user: under root, another user could not read pytest's temporary folders.
    """
    (folder / "conf.d").mkdir(parents=True)
    (folder / "conf.d" / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder))
    return (where("nginx"), "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf")


def placed(site: str, places: dict[str, object]) -> str:
    """A site's configuration with each of these texts replaced; each must occur exactly once."""
    for place, ours in places.items():
        assert site.count(place) == 1, place
        site = site.replace(place, str(ours))
    return site
