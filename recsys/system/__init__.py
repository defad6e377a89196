"""The machine: this package knows nothing of recommenders.

hardware   processor, memory, graphics cards, speed      memory    peaks, limits, what is free
packages   versions, extras, how to install one          threads   work on several threads, results in order
storage    paths and object stores, one way to use both  text      secrets masked, control characters made visible
atomic     outputs that appear whole or not at all       files     how: drafts, locks, leftovers
disk       can it be written to; full and closed disks
"""
