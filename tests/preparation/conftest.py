"""One thread of OpenCV: some tests fork this process, and threads do not come along."""

import cv2

cv2.setNumThreads(1)
