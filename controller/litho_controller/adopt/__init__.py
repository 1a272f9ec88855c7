"""Taking images of other tools into the library: `litho image adopt`.

    files ──> sources (what each file is, by its name) ──> packed (volumes, splits, gzip, bzip2, zstd)
          ──> partimage | partclone (the format, every check in it) ──> Stage ──> the version is published

Apache VCL, Clonezilla and people by hand have kept images for twenty years: one compressed partimage or partclone
stream a partition, a dump of the partition table, the boot sector. They have no manifest and no hash. Adopting reads
each of them to its end, proves every checksum that its format has, and lays a copy (or a hard link) with a manifest
into the library, all or nothing. From then on it is an image like any other: the ordinary restore prints it. The
originals are only read.

`names` knows how the tools call their files, `packed` opens them, `partimage` and `partclone` read the two formats,
`stream` is what both read from, `probing` tells the file system and its UUID from the first blocks, `table` asks
sfdisk what the dump means, `adopting` puts it together.
"""
