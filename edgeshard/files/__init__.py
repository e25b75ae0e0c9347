"""A store on the file system: paths, locks, folders, atomic publishing, directory scans, change events."""
