"""Embeddings: CF vectors of the items and content vectors of the purchases (section 4.2).

The CF vectors are those of weighted ALS on the train users, or those of another recommender, from a file.

    embeddings/
      items.parquet             asins of the catalogue, in the order of all item arrays
      cf.safetensors            item_factors (I, cf_dim) float32, zero rows = cold items; mean_norm (1,);
                                user_gram (cf_dim, cf_dim), which folds in new items, with ALS only
      content_items.npy         (I, content_dim) float16: metadata only
      content_encoder/          the trained encoder, unless the settings name one
      <split>/                  `VectorStore` of the users' purchases, in the order of the dataset's rows

The vector of a purchase without its review is that of its item in `content_items.npy`.
"""
