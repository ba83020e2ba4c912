"""Draw procedural pictures: text, seed and model decide them, wholly and always the same way."""
