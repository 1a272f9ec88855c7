"""The image library on disk: flat files beside each other in one exported directory.

    .lithograph                             the marker: this is a library, and which one
    golden.json                             names the current version of image "golden"; replaced by rename
    golden.v2.json                          manifest of version 2; the version exists when this does
    golden.v2-sda.sfdisk                    partition table as an sfdisk dump
    golden.v2-sda.head                      sectors before the first partition
    golden.v2-sda1.partclone.zst            one stream a partition
    golden.v3.json.part                     somebody is making version 3 (and says who in it)
    golden.v3-sda1.partclone.zst.part       its files grow under names that end in .part

Files are flat and begin with `<image>-` or `<image>.` so that programs that look at names (Apache VCL) keep working.

`names` has the rules of names, `manifest` what a manifest holds, `shelf` finds images, `stage` makes new ones,
`care` removes them and sweeps up after the dead, `verify` reads every byte.
"""

from litho.library.manifest import FileRef, Manifest, Part
from litho.library.names import ImageRef, check_name, parse_ref
from litho.library.shelf import Library
from litho.library.stage import Owner, Stage

__all__ = ["FileRef", "ImageRef", "Library", "Manifest", "Owner", "Part", "Stage", "check_name", "parse_ref"]
