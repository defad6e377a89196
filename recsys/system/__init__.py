"""The machine: knows nothing of recommenders.

hardware: processor, memory, graphics cards, packages. memory: peaks, limits. threads: work shared out in order.
storage: local paths and object stores. atomic: files and folders that appear whole or not at all.
"""
