"""Folding in new users and items."""

import numpy as np


def test_a_vector_folded_in_is_the_one_that_implicit_solves_for():
    import implicit
    from scipy.sparse import random as random_matrix

    from regen_hf.model.fold_in import solve

    user_items = random_matrix(30, 12, density=0.3, random_state=0, format="csr", dtype=np.float32)
    user_items.data = 1 + 5 * user_items.data
    als = implicit.als.AlternatingLeastSquares(factors=4, regularization=0.2, iterations=3, random_state=0)
    als.fit(user_items, show_progress=False)
    bought = user_items[7].indices
    item_gram, user_gram = (factors.T @ factors for factors in (als.item_factors, als.user_factors))
    user = solve(item_gram, als.item_factors[bought], user_items[7].data, 0.2)
    np.testing.assert_allclose(user, als.recalculate_user(7, user_items[7]), rtol=1e-3, atol=1e-4)
    item_users = user_items.T.tocsr()
    item = solve(user_gram, als.user_factors[item_users[3].indices], item_users[3].data, 0.2)
    np.testing.assert_allclose(item, als.recalculate_item(3, item_users[3]), rtol=1e-3, atol=1e-4)
