"""Runs boosted trees in their frameworks' own formats: XGBoost, LightGBM and CatBoost, one module each.

None of them imports its framework before `load`. Files are looked through here first, because their parsers trust what they
read: an index that points nowhere ends the process, and a tree that leads back to itself never ends.
"""
