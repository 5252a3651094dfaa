"""What of a FLOps project must run in Python: checking and building its ML repository, its model's
initial parameters, and logging the best model. `python -m umbel.flops --help`.

`umbel_client_app`, `umbel_server_app`, `umbel_model` and `data_loading` also travel in the app that
is built of the repository, as modules of their own: they import nothing of this package.
"""
