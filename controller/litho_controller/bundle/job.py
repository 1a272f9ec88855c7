"""The blocking half of an import: everything that touches files, in the order in which `importing` calls it, in a thread.

`read` leaves a plan, `check` holds it against this machine, `assemble` makes all ready and prepares the journal,
`write_journal` is the point from which on only `litho_controller.bundle.journal` may take things back, `place` makes them
appear.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from litho.errors import IntegrityError, LithoError, RefusedError
from litho.library import Library
from litho.library import Manifest as LibraryManifest
from litho_controller.bundle import assemble, captured, chunked, intake, model, sums
from litho_controller.bundle import journal as log_of
from litho_controller.bundle import plan as plan_of
from litho_controller.bundle.assemble import Checked
from litho_controller.bundle.faults import bad
from litho_controller.bundle.intake import Intake, Taken, Tick
from litho_controller.bundle.journal import Journal
from litho_controller.bundle.manifest import Manifest
from litho_controller.bundle.model import Content
from litho_controller.bundle.plan import Plan
from litho_controller.bundle.requests import Imported, ImportRequest
from litho_controller.bundle.site import Site

ROOMS = ".litho-import"
"""Directory of rooms below the install directory."""


class Job:
    """One import; its methods block, and are called in their order. Each raises LithoError."""

    plan: Plan

    def __init__(
        self,
        library: Library,
        journals: Path,
        request: ImportRequest,
        site: Site,
        *,
        tick: Tick,
        stop: Callable[[], None],
    ) -> None:
        """`stop` raises when the work is to end."""
        self.request = request
        self._library = library
        self._journals = journals
        self._site = site
        self._stop = stop
        base = None if request.dry_run else self._base
        self._intake = Intake(Path(request.tarball), base, tick=tick, stop=stop)
        self._taken: Taken | None = None
        self._image: LibraryManifest | None = None
        self._checked = Checked(placed=(), same=(), aside={})
        self._journal = Journal(id=os.urandom(6).hex(), name="", rooms=())
        self._publication: captured.Publication | None = None
        self._notes: list[str] = []
        self._written: Path | None = None
        self._begun = False

    def _base(self, manifest: Manifest | None) -> Path:
        """Where the room is made: on the file system on which the image will lie."""
        if manifest is not None and manifest.method == "image":
            return captured.rooms(self._library)
        return Path(self._site.install) / ROOMS

    def read(self) -> None:
        """Read the bundle and make the plan."""
        request, site = self.request, self._site
        keys = sums.keys_in([Path(path) for path in (request.verify or (site.trust,))])
        self._intake.trust(keys, demanded=bool(request.verify) or site.signed)
        self._taken = taken = self._intake.run()
        content = model.content(taken.small, taken.members, site.install)
        self.plan = plan_of.plan(
            content,
            site,
            executable={name: member.executable for name, member in taken.members.items()},
            rename=request.rename,
            trusted=request.all_columns or taken.signer is not None,
        )
        if self.plan.image:
            if self.plan.image not in taken.small:
                raise bad("the image's manifest stands in front of manifest.cfg", hint="put manifest.cfg first")
            self._image = captured.parse(taken.small[self.plan.image], self.plan.image, taken.members)
        self._notes += [*self.plan.notes, *self._doubts(taken, content)]

    def _doubts(self, taken: Taken, content: Content) -> list[str]:
        """What a person should know about a bundle that was taken all the same."""
        notes = []
        if taken.sums is None:
            notes.append("the bundle has no SHA256SUMS: nothing says that it arrived as it was made")
        elif taken.signed and taken.signer is None:
            notes.append("the bundle is signed by a key that is not trusted here")
        named = {*content.manifest.files(), *content.beside, *(file.member for file in content.columns)}
        if self._image is not None:
            named |= {ref.file for ref in self._image.files()}
            if chunked.has(self._image):
                named |= set(filter(chunked.is_pack, taken.members))
        unnamed = [name for name in taken.members if name not in named and name not in taken.small]
        if unnamed:
            notes.append(f"{len(unnamed)} files of the bundle are named by no manifest and were left out")
        return notes

    def check(self) -> None:
        """Hold the plan against the file system and the library."""
        mark = f"old-{self._journal.id}"
        site = self._site
        own = (self._library.root, self._journals.parent, Path(site.trust), Path(site.install) / ROOMS)
        self._checked = assemble.check(self.plan, site, self._members, own=own, replace=self.request.replace, mark=mark)
        if self.plan.image and not self.request.replace and self._library.versions(self.plan.name):
            raise RefusedError(
                f"the library has an image {self.plan.name} already",
                hint="--replace adds the imported one as a new version, --rename NEW gives it another name",
                code="image-exists",
            )

    def assemble(self) -> None:
        """Make everything ready, and say in a first journal which rooms there are."""
        room = self._intake.make_room()
        self._note(name=self.plan.name, rooms=(str(room),), image=self.plan.name if self._image else "")
        steps, notes = assemble.assemble(
            self._checked,
            self._members,
            room,
            mark=f"litho-import-{self._journal.id}",
            set_uid=self.request.set_uid,
            open_room=lambda name: self._note(rooms=(*self._journal.rooms, name)),
            stop=self._stop,
        )
        self._notes += notes
        changes: dict[str, object] = {
            "steps": tuple(steps),
            "folders": log_of.missing_folders([step.target for step in steps]),
        }
        if self._image is not None:
            publication = captured.Publication(
                self._library,
                self.plan.name,
                self._image,
                self._members,
                self._journal.id,
                room=room,
                stop=self._stop,
            )
            self._publication = publication
            changes |= {"version": publication.version, "sha256": publication.sha256}
        self._journal = msgspec.structs.replace(self._journal, **changes)

    def _note(self, **changes: object) -> None:
        self._journal = msgspec.structs.replace(self._journal, **changes)
        self._written = log_of.write(self._journals, self._journal)

    def write_journal(self) -> tuple[Journal, Path]:
        """Write down what is about to happen; from now on `give_up` has no say."""
        path = log_of.write(self._journals, self._journal)
        self._begun = True
        return self._journal, path

    def place(self) -> None:
        """Make everything appear."""
        log_of.place(self._journal)
        if self._publication is not None:
            self._publication.publish()

    def close(self) -> None:
        """Give up the version that was being made. Never raises."""
        if self._publication is not None:
            self._publication.close()

    def give_up(self, exc: LithoError) -> None:
        """After a failure: nothing of a bundle that is bad is kept; what arrived of a good one is, for a second try. Never
        raises.
        """
        if self._begun:
            return
        self.close()
        cut_short = self._taken is None and not isinstance(exc, (RefusedError, IntegrityError))
        room = self._intake.room
        with contextlib.suppress(LithoError):
            if self._written is not None:
                # Nothing was placed yet: there is nothing to take back.
                log_of.forget(self._written, msgspec.structs.replace(self._journal, steps=(), folders=()))
            elif room is not None and (not cut_short or room.name.startswith("once-")):
                intake.drop(room)

    def report(self, *, dry_run: bool) -> Imported:
        """What was done, or would be."""
        plan, taken = self.plan, self._taken
        return Imported(
            name=plan.name,
            method=plan.method,
            form=plan.form,
            dry_run=dry_run,
            placed=tuple(one.target for one in self._checked.placed),
            same=self._checked.same,
            aside=tuple(self._checked.aside.values()),
            version=self._publication.version if self._publication is not None else 0,
            osimage=plan.osimage,
            linuximage=plan.linuximage,
            signed_by=str(taken.signer) if taken is not None and taken.signer is not None else "",
            media=plan.media,
            media_there=bool(plan.media) and os.path.isdir(plan.media),  # noqa: PTH112 - False for what cannot be read, too
            notes=tuple(self._notes),
        )

    @property
    def _members(self) -> dict[str, intake.Member]:
        return self._taken.members if self._taken is not None else {}
