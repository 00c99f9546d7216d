"""What is public: the names at the top, and those of the groups."""

import laser_interp as li

GROUPS = ("controls", "counts", "tasks", "types")
PUBLIC = {name: getattr(li, name) for name in li.__all__} | {
    f"{group}.{name}": value
    for group in GROUPS
    for name, value in vars(getattr(li, group)).items()
    if not name.startswith("_")
}
