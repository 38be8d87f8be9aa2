"""The audit log: who did what, who was refused, in a chain that shows every change.

keys         what links, hides and signs; one file, rotated by adding
record       one line: its fields, its link to the line before
checkpoints  signed heads of the log, exported to where nobody can change them
segments     the files, and how a log's end is found after a crash
log          writing: append, make durable, rotate, sign
recorder     what the gateway calls; a thread of its own writes
verify       what was changed, deleted, inserted, moved or cut
suspicion    what a change looks like
show         records as lines
"""
