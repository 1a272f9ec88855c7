"""What the agent and the controller both speak: the wire, a task's states, progress, the image library, errors.

Nothing in here imports either side (import-linter holds it).
"""

__version__ = "0.1.0"
