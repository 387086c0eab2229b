"""What jsonschema checks of the format of texts, and in our own processes need not."""

import sys


def without_iri() -> None:
    """Have jsonschema leave the format "iri" out in this process, which has to be ours alone, and to check no such format.

    Where a package for it is installed, as JupyterLab does, jsonschema takes a second to import that.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
