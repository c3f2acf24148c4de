"""Property tests without a time limit per example: first imports of NLTK and the like take seconds."""

from hypothesis import settings

settings.register_profile("measures", deadline=None)
settings.load_profile("measures")
