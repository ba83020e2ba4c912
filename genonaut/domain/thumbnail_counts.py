"""Count pictures by the state of their thumbnails; every count comes from an index alone."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from genonaut.core.thumbnails import ThumbSpec
from genonaut.db.models import ContentImage


@dataclass(frozen=True, slots=True)
class Counts:
    """How many pictures are in each state; ``by_spec``: those that were made, by the settings."""

    usual: ThumbSpec
    missing: int
    failed: int
    by_spec: dict[str, int]

    def public(self) -> dict[str, Any]:
        """Give what auditors see, ready for JSON."""
        made = sum(self.by_spec.values())
        current = self.by_spec.get(self.usual.hash, 0)
        return {
            "usual": {
                "spec": self.usual.hash,
                "sizes": list(self.usual.sizes),
                "formats": list(self.usual.formats),
            },
            "images": made + self.missing + self.failed,
            "current": current,
            "outdated": made - current,
            "missing": self.missing,
            "failed": self.failed,
            "specs": [
                {"spec": spec, "images": images, "is_usual": spec == self.usual.hash}
                for spec, images in self.by_spec.items()
            ],
        }


def count(session: Session, usual: ThumbSpec) -> Counts:
    """Count every picture once; the settings that made most come first."""
    is_untried, spec = ContentImage.thumb_error.is_(None), ContentImage.thumb_spec
    images = func.count()
    missing = select(images).select_from(ContentImage).where(spec.is_(None), is_untried)
    failed = select(images).select_from(ContentImage).where(~is_untried)
    made = (
        select(spec, images)
        .where(spec.is_not(None), is_untried)
        .group_by(spec)
        .order_by(images.desc(), spec)
    )
    return Counts(
        usual,
        missing=session.scalars(missing).one(),
        failed=session.scalars(failed).one(),
        by_spec={name: number for name, number in session.execute(made) if name is not None},
    )
