"""The list of everything inside the images, as CycloneDX 1.5 in JSON: what vulnerability scanners read.

Debian's packages with their exact versions, the kernel's and the firmware's among them, and the agent's libraries.
Without a date, so that equal images have equal lists.
"""

from __future__ import annotations

import urllib.parse
import uuid

import msgspec

from litho_rootimg.base import Facts


def document(facts: Facts, libraries: list[str]) -> bytes:
    """The list. `libraries` are the agent's, as `name version`."""
    components = []
    for package in facts.packages:
        version = urllib.parse.quote(package.version, safe="")
        components.append(
            {
                "type": "library",
                "name": package.name,
                "version": package.version,
                "purl": f"pkg:deb/debian/{package.name}@{version}?arch={package.arch}",
            }
        )
    for line in libraries:
        name, version = line.split()
        components.append(
            {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
            }
        )
    body = msgspec.json.encode(components)
    return msgspec.json.format(
        msgspec.json.encode(
            {
                "bomFormat": "CycloneDX",
                "specVersion": "1.5",
                # Made from the content, so the same packages have the same number.
                "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, body.decode())}",
                "version": 1,
                "metadata": {
                    "component": {"type": "operating-system", "name": "lithograph-rootimg", "version": facts.kernel}
                },
                "components": components,
            }
        )
    )
