"""The main job on this machine: capture a disk, print it onto another, prove that they are the same."""
