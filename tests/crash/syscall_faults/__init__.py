"""Make one system call fail, or all from one on, and account for every row."""
