"""What a learned code is good for: embeddings, nearest neighbors, maps, generated users.

Where embeddings come from (recsys.models.embeddings; every `Recommender` has the methods):
    model.embed_items() -> Tensor (items, size)                 a vector per item; UnsupportedError where there is none
    model.embed_users(history, users=None) -> Embeddings        .mean (users, size), .deviation or None (of a VAE)
    model.item_weights() -> Tensor, csr_matrix or None          items x items weights of linear models, None for others
    model.user_scoring_vectors(history), .item_scoring_vectors()    inner products are the scores, biases folded in
    Embedder.of(model, size=None) -> .items, .users(history)    short vectors of every model: items x items weights are
                                                                factorized, said by .is_factorized
A network has `embed` (codes of rows), `last` (last hidden layer) and `output` (weights and biases of the items).

index: nearest neighbors among many vectors. compression: one byte an element. projection, clusters, maps: a plane with
clusters and titles. generate: made-up users.
"""
