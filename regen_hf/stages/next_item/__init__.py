"""Next item prediction (section 4.1, task 3): rank the catalogue for held-out users whose last purchase is hidden.

The protocol is the common one of full ranking with one item left out:

- The history of a test user is all purchases except the last one, whose item is the target. Popularity, item kNN and
  ALS are fitted on the complete histories of train users only. Users are split by a hash and not by time, so a train
  user's purchase may be later than the target.
- All items of the catalogue are ranked except those of the history, which no model may recommend again. A user whose
  last purchase repeats an earlier one is left out, because that target is never ranked; so is a user with a single
  purchase. Both are counted.
- Ties are broken by a random order, drawn by seed, which is the same for all models. An item without data for a model
  (no train user bought it) comes after all items with a score.
- A target is cold if no train user bought it, otherwise warm. Metrics are reported for all, warm and cold targets.

Models: `popularity` (train users who bought the item), `item_knn` (cosine between items over their train buyers, summed
over the history), `als` (the run's CF vectors; a new user's vector is solved in one step from the history, Hu et al.
2008; left out, also from the blend, where they are those of another recommender), `content` (the run's content vectors
of item metadata, compared with their mean over the history), `blend` (a weighted sum of the four, each standardised per
user, with the weights of the best MRR on validation users), and `fused` (the item head of the run's trained model,
where it is fresh and has one), which is compared with each of the others by user. A model that also writes endorsements
endorses its own first choice; see `endorsements`.

Shapes: U users, I items of the catalogue, d width of vectors. With one target per user Recall@k is the hit rate,
NDCG@k is 1 / log2(1 + rank) within the first k, and MRR is the mean of 1 / rank over the full catalogue.
"""
