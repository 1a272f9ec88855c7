"""Portable images: one tarball that carries an image from one site to another.

    manifest.cfg            what it holds, in words (`manifest`)
    SHA256SUMS              a hash of every other file (`sums`), signed in SHA256SUMS.sig when somebody wants that
    tables.json             the rows of osimage and linuximage (`rows`)
    kernel rootimg.gz ...   the files

Out: `exporting` takes rows and files and writes the tarball with `tarwrite`, reproducibly. In: `intake` reads a tarball
once, from `packed` bytes through the strict `tarread`, into a room beside the target; `model` says what it holds, whichever
form the bundle has (`xcat` reads and writes the form of xCAT's imgexport); `plan`, a pure rule, says what goes where;
`assemble` prepares that in the room, with `rootimg`, `cpio` and `tree` for the root image; `journal` places it so that a
crash at any point leaves all or nothing; `importing` is the job from top to bottom, and `captured` the part of it that puts
a captured disk into the library.

Everything in a tarball is hostile until the module that reads it has returned it.
"""
