"""`layerlock analyze convergence`: how early each block can be frozen at no cost (LayerLock section 3.2, Figure 1)."""
