"""What is public: the names at the top, and those of the groups."""

import laser_interp as li

GROUPS = ("controls", "counts", "tasks", "types")
PUBLIC = {name: getattr(li, name) for name in li.__all__} | {
    f"{group}.{name}": getattr(getattr(li, group), name) for group in GROUPS for name in getattr(li, group).__all__
}
