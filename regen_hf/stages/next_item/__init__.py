"""Next item prediction (section 4.1, task 3): the last purchase of held-out users hidden, the whole catalogue ranked.

The protocol, which is the usual one of full ranking with one item left out:

- A test user's purchases but the last one are the history, the item of the last one is the target. Nothing of these
  users was fitted on: popularity, item kNN and ALS know the train users alone, whose whole histories they see. Users
  are split by a hash and not by time, so a train user's purchase may be later than the target.
- Every item of the catalogue is ranked but those of the history, which no model may recommend again. A user whose last
  purchase repeats an earlier one could never be met so and is left out, as is one with a single purchase; both are
  counted.
- Of items with equal scores an order drawn by seed decides, the same for all models; an item that a model knows nothing
  of (no train user bought it) comes after all that it scores.
- A target is cold if no train user bought it, else warm. Metrics stand for all targets, the warm and the cold ones.

Models: `popularity` (train users who bought the item), `item_knn` (cosine between items over their train buyers, summed
over the history), `als` (the run's CF vectors; a new user's is solved in one step from the history, Hu et al. 2008),
`content` (the run's content vectors of item metadata, against their mean over the history) and `blend` (a weighted sum
of the four, each standardised within a user; the weights that give validation users the best MRR).

Shapes: U users, I items of the catalogue, d width of vectors. With one target per user Recall@k is the hit rate,
NDCG@k is 1 / log2(1 + rank) within the first k, and MRR is the mean of 1 / rank over the whole catalogue.
"""
