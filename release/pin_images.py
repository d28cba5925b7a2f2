# noqa: INP001 - a script of the release, no package
"""Make the three actions of this checkout run a published image, for the release commit of the toolkit itself.

`uses: sentryagent/toolkit@v1` then pulls the image, as the other repositories do, and builds nothing.
"""

import argparse
import sys

from actions_dist import ROOT, NotPublishableError, published_image, with_image

METADATA = ("action.yml", "issue-token/action.yml", "register-agent/action.yml")


def main() -> None:
    """Rewrite the files in place; exits with 2 and one line on stderr if that is impossible."""
    parser = argparse.ArgumentParser(
        description="Name a published image in every action.yml of this checkout."
    )
    parser.add_argument("image", type=published_image, metavar="docker://NAME@sha256:DIGEST")
    image = parser.parse_args().image
    try:
        pinned = {name: with_image((ROOT / name).read_text("utf-8"), name, image) for name in METADATA}
    except NotPublishableError as error:
        sys.stderr.write(f"pin_images: {error}\n")
        sys.exit(2)
    for name, text in pinned.items():
        (ROOT / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
