"""Rows: what keeps them and updates them; `stores.ROW_STORES` is the one table of row stores."""
