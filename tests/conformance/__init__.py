"""The wire compared: the same requests to the stock SuperLink and to ours."""
