"""What every command needs of the machine: files, memory, processes, threads."""
