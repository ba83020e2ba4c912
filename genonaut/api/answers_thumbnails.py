"""Describe what auditors are told of thumbnails, for the OpenAPI document."""

from pydantic import BaseModel, ConfigDict, Field


class UsualThumbnails(BaseModel):
    """Which thumbnails every image should have."""

    spec: str = Field(description="Names these settings.")
    sizes: list[int] = Field(description="Longer edges, pixels.")
    formats: list[str]


class MadeBy(BaseModel):
    """Images whose thumbnails were made by the same settings."""

    spec: str
    images: int
    is_usual: bool = Field(description="Whether these are the settings of now.")


class ThumbnailState(BaseModel):
    """Images by the state of their thumbnails; each is in one."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "usual": {"spec": "f5f2bd58a2a1", "sizes": [512, 256], "formats": ["webp"]},
                "images": 1203,
                "current": 1190,
                "outdated": 10,
                "missing": 2,
                "failed": 1,
                "specs": [
                    {"spec": "f5f2bd58a2a1", "images": 1190, "is_usual": True},
                    {"spec": "0d1c6ba7a5f0", "images": 10, "is_usual": False},
                ],
            }
        }
    )

    usual: UsualThumbnails
    images: int
    current: int = Field(description="They have what they should have.")
    outdated: int = Field(description="Other settings made them.")
    missing: int = Field(description="They were never tried, or were lost.")
    failed: int = Field(description="The last try failed; `only=failed` tries again.")
    specs: list[MadeBy] = Field(description="Current and outdated ones, by what made them.")
