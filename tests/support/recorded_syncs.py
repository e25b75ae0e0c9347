"""Record, in a process of its own, which files SQLite syncs."""

#: The beginning of a script: `synced` lists the end of each file's name, after its last hyphen, such as "wal".
RECORD_SYNCS = """
import apsw, sys
import edgeshard
synced = []
class Recording(apsw.VFS):
    def __init__(self):
        super().__init__("recording", "unix", makedefault=True)
    def xOpen(self, name, flags):
        return File(name, flags)
class File(apsw.VFSFile):
    def __init__(self, name, flags):
        self.name = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("unix", name, flags)
    def xSync(self, flags):
        synced.append(self.name.rsplit("-")[-1])
        return super().xSync(flags)
vfs = Recording()
"""
