"""Interactions, and how they are read and stored.

```
interactions   vocabularies of ids, the table of rows, its ledger      matrix      the sparse user-item matrix
reading        ratings files of any common format                      store       a prepared, memory-mapped copy
download       public data sets                                        synthetic   generated ratings of any size
item_features  what is known of items besides who took them
```
"""
