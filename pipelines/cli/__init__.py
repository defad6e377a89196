"""What commands share.

```
main                               the Click group; turns every exception into a message
options                            from the dataclass of a job to its options, its settings file and back
settings, reading                  options and reading that several jobs have
steps                              fit, refit, tune and track
destination                        what is written is tried before the work
output, progress, unknown          printable text, tables and JSON; bars or quiet lines; ids that are unknown
errors, interrupts, exit_notice    how a command ends
```
"""
