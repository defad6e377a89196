"""Item features: the table that describes items, and its sparse matrix for models.

```
options   which columns are read, and as what         table     ItemTable, Column: one row an item, values of a kind
reading   read_item_table: CSV, Parquet, wide, long   cells     what a column holds: found from its values or its type
```
"""

from recsys.data.item_features.options import FeatureOptions
from recsys.data.item_features.reading import read_item_table
from recsys.data.item_features.table import Column, ItemTable

__all__ = ["Column", "FeatureOptions", "ItemTable", "read_item_table"]
