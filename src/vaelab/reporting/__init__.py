"""Reports: the HTML document of a study and everything else that it leaves on disk."""
