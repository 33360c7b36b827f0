"""What all tests share."""

from hypothesis import settings

# A slow or busy machine must not fail a property; timings are not tests.
settings.register_profile("diffuse_fast", deadline=None, print_blob=True)
settings.load_profile("diffuse_fast")
