"""Vectors: CF vectors of the items and content vectors of the purchases (section 4.2, the CF and semantic encoders).

    embeddings/
      items.parquet             the catalogue's asins, in the order of every item array
      cf.safetensors            item_factors (I, cf_dim) float32, zero rows = cold items; mean_norm (1,);
                                user_gram (cf_dim, cf_dim), with which new items are folded in
      content_items.npy         (I, content_dim) float16: metadata alone
      content_encoder/          the trained encoder, where none was named
      <split>/                  a `VectorStore`: vectors of the users' purchases, in the order of the dataset's rows

The vector of a purchase without its review, which the withheld view needs, is that of its item in `content_items.npy`.
"""
