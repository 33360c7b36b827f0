"""The quality of generated images: a classifier, distances between sets of images, tables and plots."""
