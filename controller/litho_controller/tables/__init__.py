"""xCAT's tables: their shape (`schema`), any row of any of them (`rows`), nodes (`nodes`) and images (`osimages`) in them."""
