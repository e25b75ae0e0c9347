"""A store on the file system: paths, modes, locks, folders, atomic publishing, directory scans, change events."""
